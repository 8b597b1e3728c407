"""A forward proxy by which processes of this machine reach Services by their DNS names.

There is no cluster DNS and no pod network on the embedded backend; Flagger's load tester runs smoke tests and warm-ups
against names such as `checkout-canary.shop`. This stands in for CoreDNS and kube-proxy, for HTTP alone.
"""
