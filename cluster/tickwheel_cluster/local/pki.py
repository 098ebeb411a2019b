"""Keys and kubeconfigs of the local cluster: one authority for all, as kubeadm lays it out."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tickwheel_cluster.certificates import builder, private_pem, write_private

__all__ = ["kubeconfig", "write_keys"]

_MASTERS = "system:masters"


def write_keys(folder: Path, addresses: dict[str, str], service_address: str) -> None:
    """Write everything, unless it is there. `addresses` are the nodes' by name; the first has the control plane."""
    if (folder / "sa.pub").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tickwheel-local-ca")])
    authority = builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, 0), critical=True)
    certificate = authority.sign(key, hashes.SHA256())
    write_private(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "ca.key", private_pem(key))

    def issue(file: str, common_name: str, organisation: str = "", names: tuple[str, ...] = ()) -> None:
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organisation:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
        own = ec.generate_private_key(ec.SECP256R1())
        leaf = builder(x509.Name(subject), certificate.subject, own.public_key()).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        if names:
            leaf = leaf.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        write_private(folder / f"{file}.crt", leaf.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        write_private(folder / f"{file}.key", private_pem(own))

    first = next(iter(addresses.values()))
    kubernetes = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    issue("apiserver", "kube-apiserver", names=("127.0.0.1", first, service_address, "localhost", *kubernetes))
    issue("apiserver-kubelet", "kube-apiserver-kubelet", _MASTERS)
    issue("front-proxy", "front-proxy-client")
    issue("admin", "admin", _MASTERS)
    issue("controller-manager", "system:kube-controller-manager")
    issue("scheduler", "system:kube-scheduler")
    issue("proxy", "system:kube-proxy")
    for node, address in addresses.items():
        issue(node, f"system:node:{node}", "system:nodes", names=(node, address))
    account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    write_private(folder / "sa.key", private_pem(account_key))
    public = account_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(folder / "sa.pub", public)


def kubeconfig(path: Path, pki: Path, name: str, url: str) -> Path:
    """A kubeconfig with the certificate of that name."""
    user = {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": url, "certificate-authority": str(pki / "ca.crt")}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": name}}],
        "current-context": "local",
    }
    write_private(path, json.dumps(config).encode())
    return path


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
