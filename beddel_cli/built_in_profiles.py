"""What the files of the built-in profiles say, by the SHA-256 of their bytes.

A run digests the file anyway. Where it finds the digest here it spares itself the YAML parser and
the schema; a file with another digest is read as any other. A test reads the files both ways.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VALUES: dict[str, dict[str, Any]] = {
    "121afe0444ee3c86d50e3c4f6c67b41cee4d581ccb3543d253f5282628644097": {
        "beddel": 1,
        "name": "ultra-secure",
        "description": "Untrusted transformations; 2 MiB, 5 s, no dynamic code, frozen clock",
        "level": "ultra",
        "isolate": {
            "limits": {
                "memory": "2MiB",
                "timeout": "5s",
                "fuel": 100000000000,
                "max_output": "256KiB",
                "max_console": "16KiB",
            },
            "dynamic_code": "none",
            "clock": "frozen",
            "network": "none",
            "required": [
                "store-limits",
                "seccomp",
                "landlock",
                "no-new-privs",
                "capabilities",
                "rlimits",
            ],
        },
        "process": {
            "limits": {
                "memory": "64MiB",
                "timeout": "30s",
                "cpu_time": "10s",
                "cpus": 0.25,
                "processes": 16,
                "disk": "16MiB",
                "inodes": 1000,
                "open_files": 64,
                "max_output": "256KiB",
            },
            "network": "none",
            "required": [
                "namespaces",
                "no-new-privs",
                "capabilities",
                "seccomp",
                "landlock",
                "rlimits",
                "cgroup",
            ],
        },
    },
    "5a3f393a0e8d2581d3fd8b97d20162c6c0e8b0939a7738f5f16cc82c9ae915e2": {
        "beddel": 1,
        "name": "high-security",
        "description": "Untrusted transformations; 4 MiB, 10 s, no dynamic code, frozen clock",
        "level": "high",
        "isolate": {
            "limits": {
                "memory": "4MiB",
                "timeout": "10s",
                "fuel": 200000000000,
                "max_output": "1MiB",
                "max_console": "64KiB",
            },
            "dynamic_code": "none",
            "clock": "frozen",
            "network": "none",
            "required": [
                "store-limits",
                "seccomp",
                "landlock",
                "no-new-privs",
                "capabilities",
                "rlimits",
            ],
        },
        "process": {
            "limits": {
                "memory": "256MiB",
                "timeout": "2min",
                "cpu_time": "1min",
                "cpus": 0.5,
                "processes": 64,
                "disk": "64MiB",
                "inodes": 4000,
                "open_files": 256,
                "max_output": "1MiB",
            },
            "network": "none",
            "required": [
                "namespaces",
                "no-new-privs",
                "capabilities",
                "seccomp",
                "landlock",
                "rlimits",
            ],
        },
    },
    "4fba1bda7ba1bf62d676eb604b51ad28c6a88b1567b78e044ef89db65d405cea": {
        "beddel": 1,
        "name": "tenant-isolated",
        "description": "Tenants' own code; 8 MiB, 15 s, the Function family, real clock",
        "level": "medium",
        "isolate": {
            "limits": {
                "memory": "8MiB",
                "timeout": "15s",
                "fuel": 300000000000,
                "max_output": "4MiB",
                "max_console": "256KiB",
            },
            "dynamic_code": "function",
            "clock": "real",
            "network": "none",
            "required": ["store-limits", "seccomp", "no-new-privs", "capabilities", "rlimits"],
        },
        "process": {
            "limits": {
                "memory": "4GiB",
                "timeout": "10min",
                "cpu_time": "10min",
                "cpus": 2,
                "processes": 500,
                "disk": "512MiB",
                "inodes": 20000,
                "open_files": 1024,
                "max_output": "16MiB",
            },
            "network": "none",
            "required": ["namespaces-or-landlock", "no-new-privs", "capabilities", "seccomp"],
        },
    },
}
