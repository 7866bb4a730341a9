"""Everything that needs the cluster: each `python -m ray_jobs.<job> --config <url>` runs alone, with or without Dagster."""

import orchestration.quiet  # noqa: F401  nothing calls home, set before torch, ray or transformers are imported
