"""Who signed what, and who is believed: keys, signatures, lists of trusted keys.

signing       Ed25519 by the machine's OpenSSL
keys          the keys of a home: made, loaded, rotated
key_files     keys in files of their own, written and read
key_environment  keys and passphrases that came by the environment
dsse          signed envelopes and bundles, as bytes (pure)
verify        the rules by which one receipt is believed (pure)
trust_list    which keys are believed, for what, and when (pure)
trust_store   that list as a file of the home
countersign   further signatures, and how many of whom are enough (pure)
evidence      what a proof, a checkpoint and a time stamp show of a receipt (pure)
timestamps    RFC 3161, by an optional package
instants, when  moments as text and numbers; the moment a key is judged at
"""
