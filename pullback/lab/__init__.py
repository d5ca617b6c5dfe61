"""The lab: one page of figures that the library itself computes, live."""
