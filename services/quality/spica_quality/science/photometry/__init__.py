"""What every source measures: positions, fluxes, shapes."""
