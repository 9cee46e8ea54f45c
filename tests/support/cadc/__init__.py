"""A stand-in of CADC's services on 127.0.0.1; see README.md beside."""

from tests.support.cadc.caom import Facts
from tests.support.cadc.control import CadcProcess
from tests.support.cadc.faults import Fault
from tests.support.cadc.server import CadcStandIn
from tests.support.cadc.store import Entry, Stored

__all__ = ["CadcProcess", "CadcStandIn", "Entry", "Facts", "Fault", "Stored"]
