//! Links libcurl, and binds nothing: librdkafka calls it from C.

#![no_std]
