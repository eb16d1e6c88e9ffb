"""A certificate authority for tests, and a proxy that speaks TLS in front of a server that does not."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import select
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class Authority:
    """Signs certificates; its own is in ``folder/ca.pem``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        mine = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        mine = mine.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(mine.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str) -> tuple[Path, Path]:
        """Certificate and key for a host's name or address."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        try:
            other: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            other = x509.DNSName(host)
        made = self._builder(name, key).add_extension(x509.SubjectAlternativeName([other]), False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        certificate, private = self.folder / f"{host}.pem", self.folder / f"{host}.key"
        certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(days=1))
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)


class TlsFront:
    """Listens with a certificate on a loopback port and hands on what it deciphers; never speaks without TLS."""

    def __init__(self, target_port: int, certificate: tuple[Path, Path]) -> None:
        self._target = target_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            if plain.recv(8, socket.MSG_PEEK) == _SSL_REQUEST:  # PostgreSQL asks first
                plain.recv(8)
                plain.sendall(b"S")
            outside = self._context.wrap_socket(plain, server_side=True)
            inside = socket.create_connection(("127.0.0.1", self._target))
        except (OSError, ssl.SSLError):
            plain.close()
            return
        with plain, outside, inside, contextlib.suppress(OSError, ValueError):
            _exchange(outside, inside)


def _exchange(outside: ssl.SSLSocket, inside: socket.socket) -> None:
    """Hand on in both directions, from one thread: an SSL socket is not for two."""
    while True:
        readable, _, _ = select.select([outside, inside], [], [])
        if outside in readable:
            data = outside.recv(65536)
            while outside.pending():
                data += outside.recv(65536)
            if not data:
                return
            inside.sendall(data)
        if inside in readable:
            data = inside.recv(65536)
            if not data:
                return
            outside.sendall(data)
