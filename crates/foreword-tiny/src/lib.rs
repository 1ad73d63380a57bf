//! foreword-tiny, a language model of 3.9 million parameters, compiled into the program.
