//! Teach a frozen language model a task by learning a few input vectors.
