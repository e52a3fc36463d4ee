"""Stage 3, deployment: from a run folder to a web service and the requests that it answers."""
