# Read a tar+gzip blob with the modules of Perl itself: read.pl BLOB < SUMS
use strict;
use warnings;
use Archive::Tar;
use Digest::SHA qw(sha256_hex);
use IO::Uncompress::Gunzip qw($GunzipError);

my ($blob) = @ARGV;
my $gunzip = IO::Uncompress::Gunzip->new($blob, Strict => 1) or die "$blob: $GunzipError\n";
my $tar = Archive::Tar->new($gunzip) or die "$blob: " . Archive::Tar->error . "\n";

# The checksum stands at the end, which the tar reader need not reach.
my ($status, $rest);
1 while ($status = $gunzip->read($rest)) > 0;
die "$blob: $GunzipError\n" if $status < 0;
die "$blob: not one whole gzip member\n" if length $gunzip->trailingData || !$gunzip->eof;

my %want = map { chomp; reverse split /  /, $_, 2 } <STDIN>;
die "no files expected\n" unless %want;
for my $file (grep { !$_->is_dir } $tar->get_files) {
    my ($path, $digest) = ($file->full_path, delete $want{ $file->full_path });
    die "$path: not expected\n" unless $file->is_file && defined $digest;
    die "$path: other bytes\n" unless sha256_hex($file->get_content) eq $digest;
}
die "$_: missing\n" for sort keys %want;
