"""What can go wrong here, and what its class decides.

=============  ===============================================================================
Unavailable    reference_missing, reference_unreadable: the image waits until the file is there
NotRetriable   no_match, too_few_matches: the image shows another sky, or too little of it
NotRetriable   bad_catalogue, bad_wcs, bad_header, bad_exposure_time, unknown_profile: what
               others left is not usable
NotRetriable   unsafe_name: the name would lead to another folder
NotRetriable   unknown_image, unknown_stack, no_solution, no_members: the store does not know
               what the message names
=============  ===============================================================================
"""

from __future__ import annotations

from spica_runtime.errors import NotRetriable, Unavailable


class ReferenceUnavailable(Unavailable):
    """The reference catalogue is not there, or not to be read. Nothing else is taken in its place."""


class CalibrationFailed(NotRetriable):
    """These data cannot be calibrated, however often it is tried."""
