"""ICU stays as dyn, sta and outc: the three files a task that YAIB (Yet Another ICU Benchmark) reads."""
