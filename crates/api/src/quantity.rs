//! Resource quantities: `500m`, `1.5Gi`, `1e3`.
