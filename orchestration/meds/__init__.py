"""The street's records in the Medical Event Data Standard (meds 0.4): written by `export`, judged by `check`."""
