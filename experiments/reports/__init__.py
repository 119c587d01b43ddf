"""What finished runs say: tables, costs, comparisons, the filters' study, and scores of files."""
