"""4 SIDE: what the daemon shows over HTTP. Nothing here writes."""
