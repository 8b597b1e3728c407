"""The certificates of one cluster: what `kubeadm init phase certs` makes, without files of anybody else."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.errors import TestbedError

VALID_FOR = datetime.timedelta(days=365)


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PEM. SEC 1 form, which every Go component reads, also as a service account key."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner can read (0600); returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
    return path


class Authority:
    """A certificate authority that lives as long as its cluster. Keys are ECDSA P-256.

    Made new where `folder` has none; the one in `folder` otherwise (a process that attaches to a running cluster).
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = folder / "ca.crt", folder / "ca.key"
        if self.key.is_file():
            self._load()
        else:
            self._make(name)

    def _load(self) -> None:
        loaded = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TestbedError(f"{self.key} is no key of ours", fix="stop the platform with `testbed down`")
        self._key = loaded
        self.pem = self.certificate.read_bytes()
        self._name = x509.load_pem_x509_certificate(self.pem).subject

    def _make(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        signed = certificate.add_extension(usage, True).sign(self._key, hashes.SHA256())
        self.pem = signed.public_bytes(serialization.Encoding.PEM)
        write_private(self.certificate, self.pem)
        write_private(self.key, private_key_pem(self._key))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + VALID_FOR)
            # Python 3.13 and newer verify strictly: RFC 5280 asks for both identifiers.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        )

    def issue(
        self, name: str, common_name: str, *, groups: Iterable[str] = (), hosts: Iterable[str] = ()
    ) -> tuple[Path, Path]:
        """Issue a certificate, good for serving and as a client; returns the paths of certificate and key.

        Args:
            name: Stem of the two files.
            common_name: To Kubernetes, the user.
            groups: Organizations; to Kubernetes, the user's groups.
            hosts: DNS names and IP addresses that it serves.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        leaf = x509.BasicConstraints(ca=False, path_length=None)
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(x509.Name(attributes), key).add_extension(purposes, False).add_extension(leaf, True)
        if names := [_general_name(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        signed = builder.sign(self._key, hashes.SHA256())
        certificate = write_private(self.folder / f"{name}.crt", signed.public_bytes(serialization.Encoding.PEM))
        return certificate, write_private(self.folder / f"{name}.key", private_key_pem(key))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def service_account_keys(folder: Path) -> tuple[Path, Path]:
    """The pair that signs and checks service account tokens; returns private and public."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return write_private(folder / "sa.key", private_key_pem(key)), write_private(folder / "sa.pub", public)
