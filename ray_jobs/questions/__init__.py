"""Questions and answers computed from the harmonised timeline: registry, cut-offs, operators, choice and wording."""
