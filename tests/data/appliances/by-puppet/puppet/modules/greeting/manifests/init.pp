class greeting {
  package { 'jq': ensure => installed }
  user { 'keeper': ensure => present, system => true, shell => '/usr/sbin/nologin' }
  file { '/etc/greeting.conf':
    content => epp('greeting/greeting.conf.epp'), owner => 'keeper', mode => '0640', require => User['keeper']
  }
  service { 'greeting': enable => true }
}
