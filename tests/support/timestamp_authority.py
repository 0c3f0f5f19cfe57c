"""A timestamp authority of our own, made of the openssl command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = a test authority
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[stamping]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = stamper
[stamper]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


class Authority:
    """Answers requests with stamps of the present time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        (folder / "config").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01\n")
        ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        config = ("-config", "config")
        self._run("req", *ec, *config, "-x509", "-days", "2", "-extensions", "root",
                  "-keyout", "root.key", "-out", "root.pem")  # fmt: skip
        self._run("req", *ec, *config, "-subj", "/CN=stamper", "-keyout", "tsa.key",
                  "-out", "tsa.csr")  # fmt: skip
        self._run("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key",
                  "-CAcreateserial", "-days", "2", "-extfile", "config", "-extensions", "stamping",
                  "-out", "tsa.pem")  # fmt: skip
        self.root = folder / "root.pem"

    def answer(self, query: bytes, chain: str = "") -> bytes:
        """Give the answer to a request, a refusal too, with further certificates (PEM)."""
        (self.folder / "query").write_bytes(query)
        (self.folder / "chain.pem").write_text(chain)
        more = ("-chain", "chain.pem") if chain else ()
        self._run("ts", "-reply", "-queryfile", "query", "-signer", "tsa.pem", "-inkey", "tsa.key",
                  "-config", "config", "-section", "stamper", "-out", "reply", *more)  # fmt: skip
        return (self.folder / "reply").read_bytes()

    def _run(self, *words: str) -> None:
        done = subprocess.run(
            ["openssl", *words], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
