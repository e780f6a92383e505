//! What Pod and pod templates share: defaults, validation, printing of the pod specification.
