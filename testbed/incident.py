"""The incident, as a scenario reports it."""


class Incident(AssertionError):
    """The incident happened: the platform did not hold.

    A scenario raises it where it sees the incident itself, and only there. With its guard on that fails the scenario;
    its negative control must raise it, and any other outcome of the control fails the run.
    """
