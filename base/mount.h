/* mount.h - is a path on a file system that other machines share? */
#ifndef BASE_MOUNT_H
#define BASE_MOUNT_H

#include <stdbool.h>

enum { MX_MOUNT_TYPE = 64 };

/* True for NFS, SMB, Lustre and their like; *ret_type is then the system's name for it ("nfs4"). A path that does not exist yet
 * is asked about by its folder. False where the system does not tell (no /proc). */
bool mx_mount_network(const char *path, char ret_type[MX_MOUNT_TYPE]);
/* The same for a device of a table in the form of /proc/self/mountinfo (proc(5)). */
bool mx_mount_network_in(const char *table, unsigned major, unsigned minor, char ret_type[MX_MOUNT_TYPE]);

#endif
