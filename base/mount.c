/* mount.c - see mount.h. */
#include "base/mount.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* 9p is how virtual machines see their host's disk, too: only over a network is it one. */
static bool is_network(const char *type, const char *options) {
    static const char *const names[] = {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "afs", "orangefs", "pvfs2", "panfs", "davfs",
        "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.davfs2",
        "fuse.curlftpfs", "fuse.juicefs", "fuse.moosefs", "fuse.lizardfs",
    };

    if (strcmp(type, "9p") == 0) {
        return strstr(options, "trans=tcp") || strstr(options, "trans=rdma");
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(type, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool mx_mount_network_in(const char *table, unsigned major, unsigned minor, char ret_type[MX_MOUNT_TYPE]) {
    for (const char *line = table; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char text[4096], type[MX_MOUNT_TYPE], options[2048] = "";
        size_t length = strcspn(line, "\n");
        unsigned a, b;
        const char *tail;

        if (length >= sizeof text) {
            continue;
        }
        memcpy(text, line, length);
        text[length] = '\0';
        tail = strstr(text, " - "); /* optional fields end here: type, source, options follow */
        if (sscanf(text, "%*d %*d %u:%u", &a, &b) == 2 && a == major && b == minor && tail &&
            sscanf(tail, " - %63s %*s %2047s", type, options) >= 1 && is_network(type, options)) {
            strcpy(ret_type, type);
            return true;
        }
    }
    return false;
}

/* /proc tells no size before it is read. */
static char *read_table(void) {
    enum { TABLE_MAX = 1 << 20 };
    char *text = malloc(TABLE_MAX);
    FILE *f = text ? fopen("/proc/self/mountinfo", "r") : NULL;

    if (text) {
        text[f ? fread(text, 1, TABLE_MAX - 1, f) : 0] = '\0';
    }
    if (f) {
        fclose(f);
    }
    return text;
}

bool mx_mount_network(const char *path, char ret_type[MX_MOUNT_TYPE]) {
    const char *slash = strrchr(path, '/');
    char folder[4096], *table;
    struct stat info;
    bool network = false;

    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (stat(path, &info) != 0 && stat(folder, &info) != 0) {
        return false;
    }
    table = read_table();
    if (table) {
        network = mx_mount_network_in(table, major(info.st_dev), minor(info.st_dev), ret_type);
    }
    free(table);
    return network;
}
