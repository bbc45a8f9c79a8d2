//! What leaves a log for other tools and for people: `export` and `report`.
