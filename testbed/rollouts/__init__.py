"""Releases under real traffic: Flagger shifts it, a load generator counts what users would have seen.

release   what is released, with which fault, and which guard its Canary lacks
weakened  Canaries without one of the platform's guards: what the negative controls run
outcome   what became of it: phases, weights, Flagger's words, requests by release
rollout   one release on a platform
campaign  all releases of a session side by side, so that they take the time of one
fixtures  how scenarios get at it
"""
