"""Throwaway MySQL and Redis servers on free ports of this machine."""
