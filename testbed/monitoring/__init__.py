"""What Prometheus scrapes: the pods of a cluster that ask for it.

targets   which pod asks, and where it listens on this machine
__main__  keeps the file that Prometheus watches true
"""
