"""Builds, converts and fits morphable face models. numpy and scipy; imports only `core`."""
