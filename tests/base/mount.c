/* Which file systems SQLite must not share between machines: told from a table of mounts, so that no server is needed. */
#include "base/mount.h"

#include <criterion/criterion.h>
#include <string.h>

static const char table[] =
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "40 27 0:50 / /home rw,relatime shared:7 master:1 - nfs4 server:/home rw,vers=4.2,addr=10.0.0.1\n"
    "41 27 0:51 / /scratch rw - lustre 10.0.0.2@tcp:/scratch rw\n"
    "42 27 0:52 / /mnt/with\\040space rw,relatime - fuse.sshfs ada@host:/ rw,user_id=0\n"
    "43 27 0:53 / /mnt/usb rw,relatime - fuseblk /dev/sdb1 rw\n"
    "44 27 0:54 / /mnt/vm rw,relatime - 9p share rw,trans=virtio\n"
    "45 27 0:55 / /mnt/plan9 rw,relatime - 9p 10.0.0.3 rw,trans=tcp,port=564\n"
    "46 27 0:56 / /mnt/windows rw,relatime - cifs //server/share rw\n"
    "47 27 0:57 /sub /data/nfs rw,relatime - xfs /dev/nfs4 rw\n"
    "48 27 0:58 broken line\n"
    "49 27 0:59 / /last rw - gpfs last rw"; /* no newline at the end */

Test(mount, network_file_systems_are_known_by_their_type) {
    static const struct {
        unsigned minor;
        const char *type;
    } network[] = { { 50, "nfs4" }, { 51, "lustre" }, { 52, "fuse.sshfs" }, { 55, "9p" }, { 56, "cifs" }, { 59, "gpfs" } };
    static const unsigned local[] = { 21, 53, 54, 57, 58, 99 };
    char type[MX_MOUNT_TYPE];

    for (size_t i = 0; i < sizeof network / sizeof network[0]; i++) {
        cr_assert(mx_mount_network_in(table, 0, network[i].minor, type), "0:%u", network[i].minor);
        cr_assert_str_eq(type, network[i].type);
    }
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
        cr_assert_not(mx_mount_network_in(table, 0, local[i], type), "0:%u is %s?", local[i], type);
    }
    cr_assert_not(mx_mount_network_in(table, 254, 0, type));
    cr_assert_not(mx_mount_network_in("", 0, 50, type));
}

Test(mount, this_machines_own_folders_are_asked_about_without_harm) {
    char type[MX_MOUNT_TYPE];

    cr_assert_not(mx_mount_network("/proc", type));
    cr_assert_not(mx_mount_network("/proc/no such file", type), "its folder is asked");
    cr_assert_not(mx_mount_network("/no such folder/file.db", type));
}
