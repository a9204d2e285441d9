"""Whose signature an image carries: MCUboot's public sample keys, and the check with a key of your own.

Sources: the `root-*.pem` files of MCUboot, imgtool's `keys/`.
"""

from __future__ import annotations

import hashlib

from mcumgrx.errors import UsageError
from mcumgrx.mcuboot.image import Image
from mcumgrx.mcuboot.tlv import HASH_ALGORITHMS, SIGNATURES, TlvType

__all__ = ["sample_key", "signed_by"]

_SAMPLE_KEYS = {
    "fc5701dc6135e1323847bdc40f04d2e5bee5833b23c29f93593d00018cfa9994": "root-rsa-2048.pem",
    "449793fb65cd7698753d5b3f35fab15f1e3a45111ff24e1d46741de5ae12d59e": "root-rsa-3072.pem",
    "e30466f6b8470c1f29070b17f1e2d3e94d445e3f608087fdc711e4382bb538b6": "root-ec-p256.pem",
    "85b7bd5f5dff9a03a99927adaf6ca6febde822c1a480928324a8e60323715c57"
    "79461c496a95aee8c4f90b99779f848a": "root-ec-p384.pem",
    "c1907fa4eac7fae3840a78902b6f0710b037e9968e5c6274a12a28790c7d4e3c": "root-ed25519.pem",
    "e3e129b49f1218e18e4614acb2523389c75852ebb98b4d2c6171a2fc65706ba3"
    "d1ddf85f52e71450c3e572e624695fafd41ce4d9354d6c2b19f7d6001a6ae8b0": "root-ed25519.pem",
}
"""Their hashes, each with the algorithms that go with the key."""


def sample_key(image: Image) -> str | None:
    """The file name of MCUboot's own sample key that signed the image: everybody has it. None for any other key."""
    return None if image.key_hash is None else _SAMPLE_KEYS.get(image.key_hash.hex())


def signed_by(image: Image, pem: bytes) -> bool | None:
    """Whether the image's signature was made with this key, public or private, in PEM.

    None where it cannot be told: an encrypted image with a pure signature, which is over what only the device sees.
    Needs the package `cryptography`. Raises `UsageError` without it, and for a key that cannot be read.
    """
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
    except ImportError:
        raise UsageError(
            "signatures are checked with the package cryptography, which is not installed",
            hint='pip install "mcumgrx[verify]"',
        ) from None
    encoding, formats = serialization.Encoding, serialization.PublicFormat
    try:
        if b"PRIVATE KEY" in pem:
            key = serialization.load_pem_private_key(pem, None).public_key()
        else:
            key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise UsageError(
            "the key cannot be read",
            hint="it is a PEM file without a password: imgtool getpub -k KEY -e pem writes the public one",
        ) from error
    form = formats.PKCS1 if isinstance(key, rsa.RSAPublicKey) else formats.SubjectPublicKeyInfo
    algorithm = HASH_ALGORITHMS[image.hash_type][0]
    if image.key_hash not in (None, hashlib.new(algorithm, key.public_bytes(encoding.DER, form)).digest()):
        return False
    found = next((tlv.value for tlv in image.tlvs if tlv.type in SIGNATURES), b"")
    digest = hashes.SHA384() if image.hash_type is TlvType.SHA384 else hashes.SHA256()
    try:
        match key:
            case rsa.RSAPublicKey():
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
                key.verify(found, image.hash, pss, utils.Prehashed(hashes.SHA256()))
            case ec.EllipticCurvePublicKey():
                # Older imgtools fill it up to the greatest length with zeros.
                found = found[: found[1] + 2] if len(found) > 1 else found
                key.verify(found, image.hash, ec.ECDSA(utils.Prehashed(digest)))
            case ed25519.Ed25519PublicKey() if not image.pure_signature:
                key.verify(found, image.hash)
            case ed25519.Ed25519PublicKey():
                if image.encrypted:
                    return None
                key.verify(found, bytes(image.data[: image.header.hashed_size]))
            case _:
                return False
    except (InvalidSignature, ValueError):  # ValueError: a hash that does not go with this kind of key
        return False
    return True
