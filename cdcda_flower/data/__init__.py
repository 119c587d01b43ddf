"""Data on disk: LaMP's files, the embedded corpus, the choice of target users, and the prepared folders of a run."""
