"""Time in the demo world: int64 minutes since 1970-01-01 UTC."""

from datetime import datetime

HOUR = 60
DAY = 1440


def minute(text: str) -> int:
    """'2023-01-05T00:00' as minutes since 1970 UTC."""
    return int((datetime.fromisoformat(text) - datetime(1970, 1, 1)).total_seconds() // 60)
