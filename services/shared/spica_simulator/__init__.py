"""The simulated night: frames with known truth, for the demo, the tests and the benchmarks. No service imports it."""

from spica_simulator.night import simulate_night, small_night
from spica_simulator.truth import Frame, FrameCcd, Night, load_night

__all__ = ["Frame", "FrameCcd", "Night", "load_night", "simulate_night", "small_night"]
