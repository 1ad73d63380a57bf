//! The foreword command: soft prompt tuning from the terminal.
