/* header.cc - as header.c, for headers that are C++. */
#include HEADER
#include HEADER
