//! What is shown: `tail`, `show`, `doctor`, `demo`, and what a shell gets.
