"""What can go wrong here, and what its class decides.

=============  ===============================================================================
Unavailable    reference_*: the image waits until the stars can be had
Unavailable    scamp_missing: it waits until the engine that was asked for is installed
NotRetriable   no_match, too_few_matches: the image shows another sky, or too little of it
NotRetriable   bad_catalogue, bad_wcs, bad_header, bad_exposure_time, unknown_profile: what
               others left is not usable
NotRetriable   scamp_failed: what SCAMP said last
NotRetriable   reference_area: no part of the catalogue is ever enough
NotRetriable   unsafe_name: the name would lead to another folder
NotRetriable   no_flux_scale: a stack wants its members as they are, and one has no zero point
NotRetriable   unknown_image, not_measured, unknown_stack, no_solution, no_members: the store
               does not know what the message names
=============  ===============================================================================
"""

from __future__ import annotations

from spica_runtime.errors import NotRetriable, Unavailable


class ReferenceUnavailable(Unavailable):
    """The reference catalogue is not there, or not to be read. Nothing else is taken in its place."""


class CalibrationFailed(NotRetriable):
    """These data cannot be calibrated, however often it is tried."""
