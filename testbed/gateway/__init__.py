"""The gateway: a controller that turns Gateway API objects into the configuration of an Envoy beside it.

resources   what is watched
backends    Services and EndpointSlices: which addresses a backendRef means
attachment  which HTTPRoute belongs to which listener, and why not
matching    one rule of an HTTPRoute in Envoy's words
plan        all of it: what Envoy should have, and what the status of every object should say
envoy       the files that Envoy watches
proxy       writes them in an order that loses no request, and waits until Envoy has them
controller  watches, plans, applies, reports
"""
