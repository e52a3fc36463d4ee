"""Stage 1, data acquisition and understanding: from a folder of files to a manifest that can be trusted."""
