"""The sky under the sources, and its noise."""
