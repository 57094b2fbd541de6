"""Questions that several runs answer together: comparing arms, measures, intervals, the report."""
