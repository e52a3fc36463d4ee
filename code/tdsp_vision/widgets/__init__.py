"""Widgets for stepping through the notebooks. They read files and hold decisions; the notebooks write them down."""
