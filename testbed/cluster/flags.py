"""The command lines of the control plane's components: as kubeadm writes them, where loopback allows."""

from __future__ import annotations

from pathlib import Path

from testbed.cluster.pki import Authority
from testbed.ports import LOOPBACK
from testbed.workloads.labels import SELECTOR

SERVICE_CIDR = "10.96.0.0/12"
POD_CIDR = "10.128.0.0/9"
SERVED_AS = [
    LOOPBACK,
    "localhost",
    "10.96.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
]
"""The names of the API server."""

Flags = dict[str, object]


class Pki:
    """The three authorities of a cluster and its service account keys, below one folder."""

    def __init__(self, folder: Path, cluster: Authority, service_accounts: tuple[Path, Path]) -> None:
        self.cluster = cluster
        self.etcd = Authority("etcd-ca", folder / "etcd")
        self.front_proxy = Authority("front-proxy-ca", folder / "front-proxy")
        self.service_account_key, self.service_account_public = service_accounts


def etcd(pki: Pki, data: Path, client_port: int, peer_port: int) -> Flags:
    """One member, TLS with client certificates both for clients and peers."""
    certificate, key = pki.etcd.issue("server", "etcd", hosts=[LOOPBACK, "localhost"])
    return {
        "name": "etcd",
        "data-dir": data,
        "listen-client-urls": f"https://{LOOPBACK}:{client_port}",
        "advertise-client-urls": f"https://{LOOPBACK}:{client_port}",
        "listen-peer-urls": f"https://{LOOPBACK}:{peer_port}",
        "initial-advertise-peer-urls": f"https://{LOOPBACK}:{peer_port}",
        "initial-cluster": f"etcd=https://{LOOPBACK}:{peer_port}",
        "client-cert-auth": "true",
        "peer-client-cert-auth": "true",
        "cert-file": certificate,
        "key-file": key,
        "trusted-ca-file": pki.etcd.certificate,
        "peer-cert-file": certificate,
        "peer-key-file": key,
        "peer-trusted-ca-file": pki.etcd.certificate,
        # A test platform survives the death of any process, not of the machine (as envtest chooses, too).
        "unsafe-no-fsync": "true",
    }


def kube_apiserver(pki: Pki, port: int, etcd_port: int) -> Flags:
    """RBAC, kubeadm's admission plugins, aggregation; no insecure flag."""
    etcd_certificate, etcd_key = pki.etcd.issue("apiserver-client", "kube-apiserver-etcd-client")
    certificate, key = pki.cluster.issue("apiserver", "kube-apiserver", hosts=SERVED_AS)
    kubelet_certificate, kubelet_key = pki.cluster.issue(
        "apiserver-kubelet-client", "kube-apiserver-kubelet-client", groups=["kubeadm:cluster-admins"]
    )
    proxy_certificate, proxy_key = pki.front_proxy.issue("client", "front-proxy-client")
    return {
        "bind-address": LOOPBACK,
        "secure-port": port,
        # Kubernetes refuses loopback addresses in Endpoints, and nothing here needs the kubernetes Service's.
        "advertise-address": LOOPBACK,
        "endpoint-reconciler-type": "none",
        "etcd-servers": f"https://{LOOPBACK}:{etcd_port}",
        "etcd-cafile": pki.etcd.certificate,
        "etcd-certfile": etcd_certificate,
        "etcd-keyfile": etcd_key,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "allow-privileged": "true",
        "client-ca-file": pki.cluster.certificate,
        "tls-cert-file": certificate,
        "tls-private-key-file": key,
        "kubelet-client-certificate": kubelet_certificate,
        "kubelet-client-key": kubelet_key,
        "kubelet-certificate-authority": pki.cluster.certificate,
        # The first is where the add-on workloads serves logs; node addresses lead nowhere here.
        "kubelet-preferred-address-types": "ExternalDNS,InternalIP,Hostname",
        "proxy-client-cert-file": proxy_certificate,
        "proxy-client-key-file": proxy_key,
        "requestheader-client-ca-file": pki.front_proxy.certificate,
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": pki.service_account_public,
        "service-account-signing-key-file": pki.service_account_key,
        "service-cluster-ip-range": SERVICE_CIDR,
    }


def _served(pki: Pki, role: str, port: int, kubeconfig: Path) -> Flags:
    certificate, key = pki.cluster.issue(f"{role}-serving", role, hosts=[LOOPBACK])
    return {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": LOOPBACK,
        "secure-port": port,
        "tls-cert-file": certificate,
        "tls-private-key-file": key,
        "client-ca-file": pki.cluster.certificate,
        "requestheader-client-ca-file": pki.front_proxy.certificate,
    }


def kube_controller_manager(pki: Pki, port: int, kubeconfig: Path) -> Flags:
    """All controllers, each under a service account of its own."""
    return {
        **_served(pki, "kube-controller-manager", port, kubeconfig),
        "kubeconfig": kubeconfig,
        "root-ca-file": pki.cluster.certificate,
        "cluster-signing-cert-file": pki.cluster.certificate,
        "cluster-signing-key-file": pki.cluster.key,
        "service-account-private-key-file": pki.service_account_key,
        "use-service-account-credentials": "true",
        "controllers": "*,bootstrapsigner,tokencleaner",
        "allocate-node-cidrs": "true",
        "cluster-cidr": POD_CIDR,
        "service-cluster-ip-range": SERVICE_CIDR,
        "node-cidr-mask-size": "24",
        # One replica: an election would only add its lease time to every restart.
        "leader-elect": "false",
        "kube-api-qps": "500",
        "kube-api-burst": "1000",
    }


def kube_scheduler(pki: Pki, port: int, kubeconfig: Path, configuration: Path) -> Flags:
    """The default scheduler; `configuration` says who it is and that it is alone."""
    return {**_served(pki, "kube-scheduler", port, kubeconfig), "config": configuration}


def kwok(pki: Pki, port: int, kubeconfig: Path, stages: Path) -> Flags:
    """KWOK for the nodes that carry its annotation, and for their pods."""
    certificate, key = pki.cluster.issue("kwok-serving", "kwok", hosts=[LOOPBACK])
    return {
        "kubeconfig": kubeconfig,
        "config": stages,
        "cidr": "10.128.0.0/24",
        "node-ip": LOOPBACK,
        # Not its own: it would write it into the nodes again and again, over that of the add-on workloads.
        "node-port": 0,
        "node-lease-duration-seconds": "40",
        "manage-all-nodes": "false",
        # Pods that the workloads add-on runs as processes.
        "disregard-status-with-label-selector": SELECTOR,
        "manage-nodes-with-annotation-selector": "kwok.x-k8s.io/node=fake",
        "server-address": f"{LOOPBACK}:{port}",
        "tls-cert-file": certificate,
        "tls-private-key-file": key,
    }
