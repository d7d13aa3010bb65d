"""From the publishers' own files to the CSVs that training reads."""
