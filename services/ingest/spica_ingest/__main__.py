"""`python -m spica_ingest`: run the ingest service."""

from spica_runtime.service import run

from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings

if __name__ == "__main__":
    run("ingest", IngestSettings, compose)
