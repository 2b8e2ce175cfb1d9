"""Everything that can go wrong on demand: the table of faults, and which of them are armed."""

from sandbox.faults.armed import Armed, FaultError, Faults, edit
from sandbox.faults.fault import FOREVER, Fault
from sandbox.faults.table import FAULTS

__all__ = ["FAULTS", "FOREVER", "Armed", "Fault", "FaultError", "Faults", "edit"]
