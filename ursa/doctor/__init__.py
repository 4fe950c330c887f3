"""``ursa doctor``: real probes of everything that a night's ingest leans on, each with the mend.

Nothing is left behind: the objects that a writing role's probe makes lie under ``<prefix>.ursa-doctor/``, which is no
recording's name, and are deleted; one that could not be is named.
"""

from __future__ import annotations

from ursa.doctor.examine import diagnose
from ursa.doctor.results import ProbeResult, Status, exit_code_of

__all__ = ["ProbeResult", "Status", "diagnose", "exit_code_of"]
