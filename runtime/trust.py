"""Who made a bundle: signatures in minisign's format (Ed25519 over BLAKE2b-512), checked against a key that is trusted.

The hashes in a manifest prove that a bundle is whole, not where it comes from: whoever changes it makes new ones.
Signing is left to minisign itself: `minisign -Sm model.edgeser`, for a folder `minisign -Sm model/manifest.json`.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.errors import BundleError, InputError, MissingDependencyError
from edgeser.runtime.names import escaped

SIGNATURE_SUFFIX = ".minisig"
_MOST_BYTES = 1 << 14  # of a key or a signature with its comments
_KEY, _HASHED, _UNHASHED = b"Ed", b"ED", b"Ed"
_UNTRUSTED, _TRUSTED = "untrusted comment: ", "trusted comment: "
_ID = slice(2, 10)


@dataclass(frozen=True)
class Signature:
    """A signature that was found good.

    Attributes:
        key: Id of the key, as minisign shows it.
        comment: What the signer wrote, and signed too.
    """

    key: str
    comment: str


@dataclass(frozen=True)
class PublicKey:
    """A key that is trusted.

    Attributes:
        raw: `Ed`, 8 bytes of id, 32 bytes of key.
    """

    raw: bytes

    @classmethod
    def read(cls, given: str | os.PathLike[str]) -> PublicKey:
        """Read a key.

        Args:
            given: The key itself, `RW…`, or the `.pub` file that minisign wrote.

        Raises:
            InputError: It is neither.
        """
        path = Path(given)
        try:
            lines = _lines(path) if path.is_file() else [str(given)]
            raw = base64.b64decode(lines[-1], validate=True)
        except (OSError, ValueError) as error:  # binascii.Error is a ValueError, and so is what is no UTF-8
            raise _no_key(given) from error
        if len(raw) != 42 or raw[:2] != _KEY:
            raise _no_key(given)
        return cls(raw)

    def check(self, path: Path, digest: bytes) -> Signature:
        """Check a signature.

        Args:
            path: The signature's file.
            digest: BLAKE2b-512 of what it should be over.

        Raises:
            BundleError: There is none, or it is not this key's over this digest.
            MissingDependencyError: cryptography is not installed.
        """
        signature, comment, over_all = _read_signature(path)
        if signature[:2] == _UNHASHED:
            raise BundleError(f"{path.name}: signed in minisign's old form (-l): have it signed again without")
        if signature[_ID] != self.raw[_ID]:
            raise BundleError(f"{path.name}: signed with key {_shown(signature)}, trusted is {_shown(self.raw)}")
        self._verify(path, signature[10:], digest)
        self._verify(path, over_all, signature[10:] + comment.encode())
        return Signature(_shown(self.raw), comment)

    def _verify(self, path: Path, signature: bytes, message: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ModuleNotFoundError as error:
            raise MissingDependencyError("cryptography", "trust", "a trusted key") from error
        try:
            Ed25519PublicKey.from_public_bytes(self.raw[10:]).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise BundleError(
                f"{path.name}: no signature of key {_shown(self.raw)} over this bundle: do not use it, fetch it again"
            ) from error


def _read_signature(path: Path) -> tuple[bytes, str, bytes]:
    """Return a signature with its form and key's id, the comment that is signed too, and the signature over both."""
    try:
        lines = _lines(path)
    except FileNotFoundError as error:
        raise BundleError(
            f"not signed: {path} is missing: get it from where the bundle comes from, or do without a trusted key"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _no_signature(path) from error
    if len(lines) != 4 or not lines[2].startswith(_TRUSTED):
        raise _no_signature(path)
    try:
        signature, over_all = (base64.b64decode(lines[i], validate=True) for i in (1, 3))
    except binascii.Error as error:
        raise _no_signature(path) from error
    if (len(signature), len(over_all)) != (74, 64) or signature[:2] not in (_HASHED, _UNHASHED):
        raise _no_signature(path)
    return signature, lines[2].removeprefix(_TRUSTED), over_all


def _lines(path: Path) -> list[str]:
    """Return the lines of a small text file that begins as minisign's do."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
        raise ValueError("no small file")
    lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    if len(lines) < 2 or not lines[0].startswith(_UNTRUSTED):
        raise ValueError("no comment")
    return [line.removesuffix("\r") for line in lines]


def _shown(raw: bytes) -> str:
    return raw[_ID][::-1].hex().upper()


def _no_key(given: object) -> InputError:
    return InputError(f"trusted: got {escaped(str(given)):.80}, expected minisign's public key (RW…) or its file")


def _no_signature(path: Path) -> BundleError:
    return BundleError(f"{path.name}: not readable as a signature of minisign: fetch it again")
